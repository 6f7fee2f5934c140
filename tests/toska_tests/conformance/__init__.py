"""What a data plane has to do, told without saying which one: cases of routing over real sockets.

A case is a piece of a routing document, upstreams that behave in some way, and steps: what a client sends, what the
upstream must see of it, and what the client must get. An engine is whatever can be started with a routing document and
then has an address (`engine`); a new one needs one class there, which lists by name what it cannot do, and why.
"""
