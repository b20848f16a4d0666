"""From where content is published to the store, through downloader and verifier.

Brings together what knows nothing of each other: datastores, agents, store. Every byte is hashed
by the verifier before the store sees it, and by the store again on the very inode that it keeps.
"""
