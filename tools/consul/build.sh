#!/bin/sh
# Builds the Consul of go.mod, once per version of that file, and prints where
# it is: in the folder given, else in the user's cache, where tests look for it.
#
#   tools/consul/build.sh [FOLDER]
set -eu
cd "$(dirname "$0")"

case "$(uname -s)" in
Darwin) cache=$HOME/Library/Caches ;; # as Go's os.UserCacheDir says
*) cache=${XDG_CACHE_HOME:-$HOME/.cache} ;;
esac
folder=${1:-$cache/gatehouse}
binary=$folder/consul
version=$(sed -n 's/^require github.com\/hashicorp\/consul v//p' go.mod)

if [ -x "$binary" ] && "$binary" version | grep -qxF "Consul v$version"; then
	echo "$binary"
	exit 0
fi
mkdir -p "$folder"
fresh=$(mktemp "$folder/consul.XXXXXX")
trap 'rm -f "$fresh"' EXIT
# -mod=readonly: go.sum decides what is built.
CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "-s -w" -o "$fresh" github.com/hashicorp/consul
chmod 755 "$fresh"
mv "$fresh" "$binary"
echo "$binary"
