# held.sh PROGRAM LOCK COMMAND... - run COMMAND as the board's only measurement, with the clock governor held by the
# helper PROGRAM (governor.sh) where that may. Its last line on stderr says if the governor was another. POSIX sh.
program=$1 lock=$2
shift 2
mkdir -p "${lock%/*}" && exec 9>>"$lock"
flock -n 9 || exit 75 # another measurement runs there
said="its helper is not there"
if [ -x "$program" ]; then
  pipes=$(mktemp -d) && mkfifo "$pipes/in" "$pipes/out" || exit 73
  setsid sudo -n "$program" hold <"$pipes/in" >"$pipes/out" 2>&1 9>&- &
  exec 4>"$pipes/in" # the helper holds until this end is closed, which the kernel does however our group is killed
  read -r said <"$pipes/out" || said="its helper says nothing"
  rm -r "$pipes"
fi
governors=$(cat /sys/devices/system/cpu/cpufreq/policy*/scaling_governor 2>/dev/null | sort -u | paste -sd, -)
"$@" 4>&-
code=$?
exec 4>&-
wait
case $governors in
"" | performance) ;;
*) echo "clock governor: $governors, not performance ($said)" >&2 ;;
esac
exit $code
