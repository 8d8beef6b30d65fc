#!/usr/bin/env bash
# Installs mmtl on a Jetson, or on any Debian or Ubuntu machine, from the folder that contains this file.
set -euo pipefail
umask 022 # the service's user must be able to read what root installs

usage() {
  cat <<'TEXT'
Usage: sudo ./install.sh [OPTION...]

Installs mmtl, its model and its service; run it again to update. Profiles and settings are kept.

  --with-pycuda    build pycuda, which TensorRT on the GPU needs (requires CUDA's nvcc)
  --wheels DIR     install without a network, from the wheels in DIR
  --look           print what is installed on this machine, and change nothing
  --uninstall      remove mmtl, but keep speakers' profiles and settings
  --purge          with --uninstall: also remove profiles, settings and the user mmtl
  --prefix DIR     where to install (/opt/mmtl)
  --python FILE    Python 3.10 or newer (/usr/bin/python3, which finds JetPack's TensorRT)
  --root DIR       another root folder; creates no user and starts no service
  --help           print this text
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=
prefix=/opt/mmtl
python=/usr/bin/python3
wheels=
with_pycuda=no
action=install
purge=no

readonly state=/var/lib/mmtl
readonly settings=/etc/mmtl/mmtl.env
readonly unit=/etc/systemd/system/mmtl.service
readonly launcher=/usr/local/bin/mmtl
readonly user=mmtl

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
  printf 'install.sh: %s\n' "$*" >&2
  exit 1
}

read_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --with-pycuda) with_pycuda=yes ;;
      --wheels) wheels=$(folder "$1" "${2:-}"); shift ;;
      --look) action=look ;;
      --uninstall) action=uninstall ;;
      --purge) purge=yes ;;
      --prefix) prefix=$(absolute "$1" "${2:-}"); shift ;;
      --python) python=$(absolute "$1" "${2:-}"); shift ;;
      --root) root=$(absolute "$1" "${2:-}"); shift ;;
      --help) usage && exit ;;
      *) die "there is no option $1: see ./install.sh --help" ;;
    esac
    shift
  done
  root=${root%/}
  home=$root$prefix
  if [ "$purge" = yes ] && [ "$action" != uninstall ]; then die "--purge goes with --uninstall"; fi
}

absolute() { # OPTION PATH: print the path if it is a valid value
  case $2 in
    / | */../* | */..) die "$1 cannot be '$2'" ;;
    /*[!A-Za-z0-9/._-]*) die "$1 may hold letters, digits and /._- only, not '$2'" ;;
    /*) ;;
    *) die "$1 needs a path that begins with /, not '$2'" ;;
  esac
  printf '%s\n' "$2"
}

folder() { # OPTION PATH: print the full path of a folder
  (cd "${2:?}" && pwd) 2>/dev/null || die "$1 needs a folder, and '$2' is not one"
}

require_root() {
  [ -n "$root" ] || [ "$(id -u)" -eq 0 ] || die "this changes the system: run it with sudo"
}

check_archive() {
  (cd "$here" && sha256sum --check --quiet --strict SHA256SUMS >&2) ||
    die "files of this package are missing or damaged: unpack the archive again, or copy it again"
}

package_version() { # PACKAGE: print what dpkg says is installed, or nothing
  dpkg-query --show --showformat='${Version}' "$1" 2>/dev/null || true
}

tegra_release() { # print Jetson Linux's version, such as 36.4.3; nothing on another machine
  local told installed
  told=$(sed -nE 's/^# R([0-9]+) \(release\), REVISION: ([0-9.]+).*/\1.\2/p' "$root/etc/nv_tegra_release" 2>/dev/null || true)
  installed=$(package_version nvidia-l4t-core)
  printf '%s' "${told:-${installed%%-*}}"
}

look_around() {
  local release jetpack
  release=$(tegra_release)
  jetpack=$(package_version nvidia-jetpack)
  if [ -n "$release" ]; then
    say "machine:  a Jetson with Jetson Linux $release, JetPack ${jetpack:-unknown (no package nvidia-jetpack)}"
  else
    say "machine:  not a Jetson: mmtl will use the CPU, or a GPU that has its driver and TensorRT installed"
  fi
  look_at_python
  look_at_tensorrt "$release"
  look_at_sound
}

look_at_python() {
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
    die "$python is not Python 3.10 or newer, which mmtl needs: JetPack 6 and 7 bring it, JetPack 5 does not"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python cannot make virtual environments: sudo apt install python3-venv"
  say "python:   $(minor_version "$python") ($python)"
}

look_at_tensorrt() { # RELEASE: never installs TensorRT, since pip's is not built for a Jetson's GPU
  local version file
  if ! read -r version file < <("$python" -s -c 'import tensorrt as t; print(t.__version__, t.__file__)' 2>/dev/null); then
    say "tensorrt: none that $python sees; on a Jetson: sudo apt install nvidia-jetpack"
    return
  fi
  say "tensorrt: $version ($file)"
  case $file in
    "$root"/usr/lib/python3*) ;;
    *) [ -z "$1" ] || warn "that is not JetPack's TensorRT and may not know this GPU: sudo $python -m pip uninstall tensorrt" ;;
  esac
}

look_at_sound() {
  if ldconfig -p 2>/dev/null | grep libportaudio >/dev/null; then
    say "sound:    PortAudio"
  else
    warn "no PortAudio, so no microphone can be opened: sudo apt install libportaudio2"
  fi
}

minor_version() { # PYTHON: print its version, such as 3.10; nothing if it does not run
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

require_free() { # a folder with other content must not be filled, or emptied by --uninstall
  if [ ! -e "$home/mmtl-service" ] && [ -n "$(ls -A "$home" 2>/dev/null)" ]; then
    die "$home holds something else: name an empty or a new folder with --prefix"
  fi
  install -D -m 755 "$here/mmtl-service" "$home/mmtl-service"
}

install_program() {
  local wheel
  wheel=$here/$(sed -n 's|^[0-9a-f]*  \(wheel/.*\)|\1|p' "$here/SHA256SUMS") # an older wheel may be there too
  make_venv
  say "installing mmtl and its dependencies ..."
  pip_install "${wheel}[mqtt]" ||
    die "pip could not install mmtl, for the reason above: connect to a network, or see --wheels"
  # pip would keep another build of the same version.
  pip_install --force-reinstall --no-deps "$wheel"
  [ "$with_pycuda" = no ] || install_pycuda
}

make_venv() { # with the system's packages; kept by an update unless the version of Python changes
  local ours
  ours=$(minor_version "$python")
  if [ "$(minor_version "$home/venv/bin/python")" != "$ours" ]; then
    "$python" -m venv --clear --system-site-packages "$home/venv"
  fi
}

pip_install() { # ARGUMENT...
  local offline=()
  [ -z "$wheels" ] || offline=(--no-index --find-links "$wheels")
  PIP_USER=0 "$home/venv/bin/python" -m pip --disable-pip-version-check --quiet install \
    --constraint "$here/constraints.txt" "${offline[@]}" "$@"
}

install_pycuda() {
  PATH=$root/usr/local/cuda/bin:$PATH
  if ! command -v nvcc >/dev/null; then
    warn "no nvcc in $root/usr/local/cuda/bin, so no pycuda: mmtl will use the CPU (sudo apt install nvidia-jetpack)"
  elif pip_install pycuda >"$home/pycuda.log" 2>&1; then
    say "pycuda:   built with $(command -v nvcc)"
  else
    warn "pycuda did not build, so mmtl will use the CPU: sudo apt install g++ python3-dev and run this again;" \
      "the reason is in $home/pycuda.log"
  fi
}

install_model() {
  rm -rf "$home/bundle.new"
  cp -R "$here/bundle" "$home/bundle.new"
  rm -rf "$home/bundle"
  mv "$home/bundle.new" "$home/bundle"
}

install_service() {
  install -m 755 "$here/install.sh" "$home/"
  install -m 644 "$here"/{README.md,jetson.md,60-mmtl.rules,asound.conf} "$home/"
  mkdir -p "$root${unit%/*}" "$root${settings%/*}" "$root${launcher%/*}"
  sed "s|@PREFIX@|$prefix|g" "$here/mmtl.service" >"$root$unit"
  ln -sfn "$home/venv/bin/mmtl" "$root$launcher"
  if [ -e "$root$settings" ]; then
    say "kept $root$settings"
  else
    install -m 644 "$here/mmtl.env" "$root$settings"
  fi
}

make_user() { # may use sound and the GPU, and owns the profiles
  local group
  if [ -n "$root" ]; then
    mkdir -p "$root$state"
    return
  fi
  id "$user" >/dev/null 2>&1 ||
    useradd --system --user-group --home-dir "$state" --shell /usr/sbin/nologin "$user"
  for group in audio video render; do
    getent group "$group" >/dev/null || groupadd --system "$group"
    usermod --append --groups "$group" "$user"
  done
  install -d -o "$user" -g "$user" -m 750 "$state"
}

try_out() {
  "$home/venv/bin/mmtl" run demo --provider cpu --bundle "$home/bundle" >/dev/null ||
    die "mmtl is installed but does not run, for the reason above"
  say "mmtl has recognised its demo clip."
}

systemd_runs() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

install_all() {
  check_archive
  look_around
  require_free
  install_program
  install_model
  install_service
  make_user
  try_out
  if systemd_runs; then
    systemctl daemon-reload
    systemctl --no-block try-restart mmtl
  fi
  cat <<TEXT
Installed in $home. Next:
  mmtl devices                          list the microphones
  sudo nano $root$settings         set MMTL_SOURCE to one
  sudo systemctl enable --now mmtl      start now and at each boot
  journalctl -u mmtl -f                 show what it recognises
TEXT
}

uninstall_all() {
  if [ -e "$home/mmtl-service" ]; then
    remove_program
  elif [ "$purge" = no ]; then
    die "mmtl is not installed in $home: see --prefix"
  fi
  if [ "$purge" = yes ]; then
    remove_state
  else
    say "Removed mmtl. Profiles and settings are kept in $root$state and $root${settings%/*}: --purge removes them."
  fi
}

remove_program() {
  if systemd_runs && [ -e "$unit" ]; then systemctl disable --now mmtl; fi
  rm -f "$root$unit"
  if systemd_runs; then systemctl daemon-reload; fi
  if [ "$(readlink "$root$launcher")" = "$home/venv/bin/mmtl" ]; then rm "$root$launcher"; fi
  rm -rf "$home"/{venv,bundle,bundle.new} "$root$state/engines"
  rm -f "$home"/{README.md,jetson.md,60-mmtl.rules,asound.conf,pycuda.log,install.sh,mmtl-service}
  rmdir --ignore-fail-on-non-empty "$home"
}

remove_state() {
  rm -rf "$root$state" "$root${settings%/*}"
  if [ -z "$root" ] && id "$user" >/dev/null 2>&1; then userdel "$user"; fi
  say "Removed mmtl, its profiles and its settings."
}

main() { # bash reads it completely before it runs, since --uninstall removes this file
  read_options "$@"
  case $action in
    look) look_around ;;
    install)
      require_root
      install_all
      ;;
    uninstall)
      require_root
      uninstall_all
      ;;
  esac
  exit
}

main "$@"
