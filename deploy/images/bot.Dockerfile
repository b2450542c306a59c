# The bot, and `diagbot store`, which is the same program: docker build -f deploy/images/bot.Dockerfile .
FROM rust:1.95-slim AS build
WORKDIR /source
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY . .
# Static, so that the image below needs nothing but certificates.
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --release -p diagbot --target x86_64-unknown-linux-gnu

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=0:0 --chmod=0555 /source/target/x86_64-unknown-linux-gnu/release/diagbot /diagbot
USER 65532:65532
ENTRYPOINT ["/diagbot"]
