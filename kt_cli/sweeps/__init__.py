"""Many runs: what is to be done (plan), a part of it (chunk), all of it (execute, cluster_loop)."""
