"""Clock, memory and the machine: where the numbers of a study come from."""
