# Images of the whiskraft binary, from nothing: no base image, no registry. scripts/image.sh prepares the context:
#   scheduler/     binary, the libraries it links, /etc and the data directory; all a scheduler needs
#   invoker.tar    a Debian root file system with the interpreters of actions, and the binary

FROM scratch AS scheduler
COPY --chown=65532:65532 home/ /var/lib/whiskraft/
COPY scheduler/ /
USER 65532:65532
WORKDIR /var/lib/whiskraft
ENV WHISKRAFT_NODE_DATA_DIR=/var/lib/whiskraft/data
VOLUME /var/lib/whiskraft
EXPOSE 7400 7401
ENTRYPOINT ["/usr/bin/whiskraft"]
CMD ["--help"]

FROM scratch AS invoker
ADD invoker.tar /
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["/usr/bin/whiskraft"]
CMD ["invoker", "--help"]
