#!/bin/sh
# Generates Go code from the proto files and builds the example: examples/go/build/claims.
#
# Needs protoc, protoc-gen-go, protoc-gen-go-grpc and go. Dependencies come from the Go module proxy, or, with
# GO111MODULE=off, from GOPATH (a distribution's packages).
set -eu
cd "$(dirname "$0")"

module=codeset.example/claims
proto=../../proto
files="error scoring editing terminology grouping catalog"
options="" found=""
for file in $files; do
  [ -f "$proto/codeset/v1/$file.proto" ] || continue
  found="$found codeset/v1/$file.proto"
  options="$options --go_opt=Mcodeset/v1/$file.proto=$module/codesetv1 --go-grpc_opt=Mcodeset/v1/$file.proto=$module/codesetv1"
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
  $options $found
cp main.go "$out/"
here=$PWD
cd "$out"
if [ "${GO111MODULE:-on}" != off ]; then
  [ -f go.mod ] || go mod init $module
  go mod tidy
fi
go build -o "$here/build/claims" .
