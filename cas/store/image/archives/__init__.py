"""Image archives as files to read: directories, tars on disk, tars that come as a stream.

A layer below the import, above nothing of the store but its sources. Archives come from outside:
names are cleaned, links are resolved inside the archive, every size and count has a limit, and
nothing is ever unpacked to disk. What an archive's files mean is not decided here.
"""
