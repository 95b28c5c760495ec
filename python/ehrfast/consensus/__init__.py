"""Who decides the order of transactions: the port, its lanes, and the engines behind it."""
