"""The kinds of runs: predict, pairs, pretrain, transfer."""
