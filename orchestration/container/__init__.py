"""The main processes of two containers of docker-compose.yml: what a container needs beside what runs on any
machine.
"""
