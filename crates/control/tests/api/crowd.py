"""Opens connections from several addresses of this machine and says nothing on them. Used by crowds.rs.

Arguments: port, sources, connections of each. Says after each five hundred how many it has opened, and holds them until its input ends.
"""

import resource
import socket
import sys

port, sources, each = (int(argument) for argument in sys.argv[1:])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = []
# Source by source in turn, as a crowd comes.
for number in range(sources * each):
    one = socket.socket()
    one.bind((f"127.0.1.{number % sources + 1}", 0))
    one.connect(("127.0.0.1", port))
    held.append(one)
    if len(held) % 500 == 0:
        print(len(held), flush=True)
sys.stdin.read()
