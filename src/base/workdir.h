/*
 * The working directory by its name. A deploy that replaces the folder, by `mv` or by turning a link, leaves the
 * process in the old one, which nobody sees any more: relative paths would lead there for good.
 *
 * Threads: the main thread. All threads have one working directory.
 */
#pragma once

#include <stdbool.h>

/*
 * Remembers what the folder that we are in is called: as $PWD has it, which may lead through links, or as the system
 * does. Before anything changes it.
 */
void workdir_remember(void);

/* "" where that could not be told. */
const char *workdir_name(void);

/*
 * Before something is opened anew: if another folder has the name by now, it becomes the working directory, which the
 * log says. Not where something else than a deploy has changed it, as a script may by a module. False: none has the
 * name, and nothing has changed.
 */
bool workdir_follow(void);
