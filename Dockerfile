# `docker build -t ddoq .`, then `docker run -v "$PWD/runs:/data/runs" ddoq ddoq run digits`; the tests:
# `docker run --rm ddoq bash -c "cd /opt/ddoq && uv run --no-sync pytest"`.
FROM python:3.12-slim

# git is asked by tests for patches; a compiler is what DDOQ_COMPILE=1 needs.
RUN apt-get update && apt-get install --yes --no-install-recommends git g++ && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv && useradd --create-home ddoq && mkdir /data /opt/ddoq && chown ddoq /data /opt/ddoq

USER ddoq
WORKDIR /opt/ddoq
ENV UV_NO_CACHE=1 UV_LINK_MODE=copy PATH=/opt/ddoq/.venv/bin:$PATH
COPY --chown=ddoq . .
RUN uv sync

WORKDIR /data
CMD ["ddoq", "--help"]
