# The bot, and `diagbot store`, which is the same program, built as deploy/README.md says: docker build -f deploy/images/bot.Dockerfile .
# The bases have no default: a tag may name another image tomorrow. Give them by digest.
ARG RUST_IMAGE
ARG DEBIAN_IMAGE
FROM ${RUST_IMAGE} AS build
WORKDIR /source
COPY . .
RUN cargo build --locked --release -p diagbot

# Not `scratch`: names are resolved by the C library, which needs its shared parts at run time.
FROM ${DEBIAN_IMAGE}
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates tzdata && rm -rf /var/lib/apt/lists/*
COPY --from=build --chown=0:0 --chmod=0555 /source/target/release/diagbot /diagbot
USER 65532:65532
ENTRYPOINT ["/diagbot"]
