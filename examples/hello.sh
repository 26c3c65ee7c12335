#!/bin/sh
# Greets somebody: whiskraft invoke examples/hello.sh -p name=Ada
#
# The arguments are one JSON object, the first argument; the last line of output is the result.
name=$(printf '%s' "$1" | sed -n 's/.*"name" *: *"\([^"]*\)".*/\1/p')
echo "greeting ${name:-stranger}"
echo "{\"greeting\": \"Hello, ${name:-stranger}!\", \"activation\": \"$__OW_ACTIVATION_ID\"}"
