"""Where bundles come from and go to, one file a kind of place; `hub.pull` and `hub.push` enter, nobody else."""
