# The images of the mesh for those who have a container engine (BuildKit): docker build --target proxy --tag weft/proxy .
# What goes in is packed by `cargo xtask image`, so the layout is the same as without one: programs with the libraries that they need. The base
# brings certificates and time zones, no shell and no library; without any, as `cargo xtask image` packs it, it is --build-arg BASE=scratch.
ARG BASE=gcr.io/distroless/static-debian12:nonroot

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo xtask image --profile dist --layers --into /images
# tar keeps what the files may: linkerd2-proxy-init has capabilities.
RUN for image in controller proxy demo debug; do \
      mkdir -p /rootfs/$image && \
      tar --extract --file /images/$image.layer --directory /rootfs/$image --xattrs --xattrs-include='security.*' || exit 1; \
    done

FROM ${BASE} AS controller
COPY --from=build /rootfs/controller/ /
USER 2103:2103
ENTRYPOINT ["/weft"]

FROM ${BASE} AS demo
COPY --from=build /rootfs/demo/ /
USER 65532:65532
ENTRYPOINT ["/weft-demo"]

FROM ${BASE} AS proxy
COPY --from=build /rootfs/proxy/ /
USER 2102:2102
ENTRYPOINT ["/usr/lib/linkerd/linkerd2-proxy-identity"]

# Looks around in a pod, as the annotation config.linkerd.io/enable-debug-sidecar asks for.
FROM ${BASE} AS debug
COPY --from=build /rootfs/debug/ /
USER 0:0
ENTRYPOINT ["/usr/bin/tcpdump", "-i", "any", "-n", "-l", "-Z", "root"]
