#!/bin/sh
# Generates Go code from the proto files and builds the example: examples/go/build/claims.
#
# Needs protoc, protoc-gen-go, protoc-gen-go-grpc and go. Dependencies come from the Go module proxy, or, with
# GO111MODULE=off, from GOPATH (a distribution's packages).
set -eu
cd "$(dirname "$0")"

module=codeset.example/claims
proto=$(cd ../../proto && pwd)
files=$(cd "$proto" && echo codeset/v1/*.proto)
options=""
for file in $files; do
  options="$options --go_opt=M$file=$module/codesetv1 --go-grpc_opt=M$file=$module/codesetv1"
done

rm -rf build
if [ "${GO111MODULE:-on}" = off ]; then
  # The package under a GOPATH of its own.
  out=build/src/$module
  export GOPATH="$PWD/build:${GOPATH:-$(go env GOPATH)}"
else
  out=build/module
fi
mkdir -p "$out"
# shellcheck disable=SC2086
protoc -I "$proto" --go_out="$out" --go_opt=module=$module --go-grpc_out="$out" --go-grpc_opt=module=$module \
  $options $files
cp main.go "$out/"
here=$PWD
cd "$out"
if [ "${GO111MODULE:-on}" != off ]; then
  go mod init $module
  go mod tidy
fi
go build -o "$here/build/claims" .
