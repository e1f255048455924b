"""One thin wrapper per stage: open, call the core, write, return a record.

Task bodies import the core themselves: the process that runs a flow plans and waits, and never loads torch.
"""
