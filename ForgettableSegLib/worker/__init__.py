"""What carries a job: the lines of the protocol, the client, the worker process, the console."""
