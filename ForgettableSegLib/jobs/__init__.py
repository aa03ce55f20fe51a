"""What a user can ask for, one file a job, and the worker that runs them."""
