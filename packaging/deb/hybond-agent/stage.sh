# What is in hybond-agent_*.deb; sourced by build.sh.
# shellcheck shell=bash disable=SC2154
stage=$out/hybond-agent

put 755 "$agent" /usr/sbin/hybond-agent
bounded "$agent" "$agent_limit"
