"""Where files come from and go to. Everything that touches the network is here; `hub` may import it."""
