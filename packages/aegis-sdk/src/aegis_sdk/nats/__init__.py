"""The floor for NATS, which the SDK and control both stand on.

`login`: where NATS is, and how to get in. `connection`: one that is refused aloud and never closes by itself. `wire`: messages as
bytes. `link`: calls over a connection, each with its own definite or unknown answer; `calls`: the same in public errors. `jetstream`:
streams, in the words of their API; `codes`: the headers and refusals among these words.
Nothing here knows requests, resources or leases.
"""

from aegis_sdk.nats import library

library.check_installed()
