# The agent: one static file and an empty temporary folder, built as deploy/README.md says: docker build -f deploy/images/agent.Dockerfile .
# The bases have no default: a tag may name another image tomorrow. Give them by digest.
ARG RUST_IMAGE
FROM ${RUST_IMAGE} AS build
WORKDIR /source
COPY . .
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --profile agent -p diagbot-agent --target x86_64-unknown-linux-gnu
RUN mkdir /empty

FROM scratch
# The agent's private place, in its own root file system: output on its way to the store, and the relay's socket. Without it
# the agent refuses to capture; it never uses /dev/shm, which all containers of a pod share.
COPY --from=build --chown=0:0 --chmod=1777 /empty /tmp
# Root-owned and execute-only: the kernel makes such a process non-dumpable, so that a hostile process of the agent's own
# uid can't reach its memory, its standard input or its journal through /proc. No other file may be in the image.
COPY --from=build --chown=0:0 --chmod=0111 /source/target/x86_64-unknown-linux-gnu/agent/diagbot-agent /diagbot-agent
ENTRYPOINT ["/diagbot-agent"]
