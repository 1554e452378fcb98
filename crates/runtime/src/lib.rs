//! Runs a role's machine on a cluster: watches, effects, events, leadership, health
