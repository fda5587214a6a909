"""Messages on the wire: what comes in, what goes out, and why something was refused."""
