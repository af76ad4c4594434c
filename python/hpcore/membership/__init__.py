"""Who is a member: rosters, the pure decision function, coordinators."""
