"""The command line: declares options, calls one function, renders what comes back."""
