"""The registry in DNS (RFC 1035), under the names that Consul gives it.

wire     packets: a query read strictly, records and answers written
names    what a name asks for
zone     the records that answer it, from the registry
server   queries in, answers out: cached by the registry's indexes, shuffled, cut to size
sockets  UDP and TCP
"""
