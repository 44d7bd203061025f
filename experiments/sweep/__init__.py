"""The sweep: any table of configurations, resumable."""
