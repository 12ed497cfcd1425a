"""Every family beside its best peer, and the one table of where we are slower."""
