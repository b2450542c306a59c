# The bot, and `diagbot store`, which is the same program: docker build -f deploy/images/bot.Dockerfile .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --locked --release -p diagbot

# Not `scratch`: names are resolved by the C library, which needs its shared parts at run time.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates tzdata && rm -rf /var/lib/apt/lists/*
COPY --from=build --chown=0:0 --chmod=0555 /source/target/release/diagbot /diagbot
USER 65532:65532
ENTRYPOINT ["/diagbot"]
