/* SPDX-License-Identifier: Apache-2.0 */
/* Configs of models that are in the program: models/NAME.json, by name. */
#ifndef TESSERA_CLI_MODEL_PRESET_H
#define TESSERA_CLI_MODEL_PRESET_H

/* The config's text; NULL: there is no such preset. */
const char *cli_model_preset(const char *name);
/* "ViT-B-32, ..." */
const char *cli_model_presets(void);

#endif
