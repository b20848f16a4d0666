"""Adapters of the places where content is published, and the reliable transfer of one blob.

``port`` says what a datastore can do, ``settings`` what it is opened with, ``opening`` opens it,
``fetch`` brings one object into a file. Nothing here knows processes, users, the store, or what
the bytes mean; the bytes that come out are unverified unless a docstring says otherwise.

Importing the package costs nothing: requests and the libraries of the clouds are loaded when a
datastore of their kind is opened.
"""
