"""``syncagent run``: one process that follows queues of events, and sweeps on a schedule what they missed."""
