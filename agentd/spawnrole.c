/*
 * spawnrole.c - agentd-spawner: the spawner role without the daemon's libraries around it.
 * Every cell begins as a copy of this process, so what is mapped here is copied each time;
 * the same role inside agentd and agentctl serves where this file is not installed.
 */
#include "agentd/spawner.h"

int main(int argc, char **argv)
{
    return spawner_role(argc, argv) ? spawner_main() : 2;
}
