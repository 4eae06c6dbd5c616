/* The version of this build; CMake knows the real one. */
#pragma once

#ifndef PERILUNE_VERSION
#define PERILUNE_VERSION "0.1.0"
#endif
