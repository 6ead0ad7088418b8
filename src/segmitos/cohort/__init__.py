"""Many inputs: jobs, their output folders, tables, local processes, clusters."""
