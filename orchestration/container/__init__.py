"""The main processes of two containers of docker-compose.yml: what a container needs beside what runs on any machine.

Here: one module for each such process. Not here: anything that the local stack uses, or what the containers are
(docker-compose.yml, Dockerfile, deploy/).
"""
