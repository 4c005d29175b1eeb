"""Where bundles come from and go to, one file per kind of place; only `hub.pull` and `hub.push` import it."""
