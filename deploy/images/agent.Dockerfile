# The agent: one static file and nothing else: docker build -f deploy/images/agent.Dockerfile .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --profile agent -p diagbot-agent --target x86_64-unknown-linux-gnu

FROM scratch
# Root-owned and execute-only: the kernel makes such a process non-dumpable, so that a hostile process of the agent's own
# uid can't reach its memory, its standard input or its journal through /proc. Nothing else may be in the image.
COPY --from=build --chown=0:0 --chmod=0111 /source/target/x86_64-unknown-linux-gnu/agent/diagbot-agent /diagbot-agent
ENTRYPOINT ["/diagbot-agent"]
