/* SPDX-License-Identifier: Apache-2.0 */
/* An adapter's config of any bytes: it is refused with a message, or gives a rank and a factor that
 * can be used. */
#include <math.h>
#include <stdlib.h>

#include "fusion/lora.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    tess_json_doc *doc = NULL;
    tess_lora_config c = {0};
    tess_status st = tess_json_parse((const char *)data, n_bytes, "fuzz", &doc);
    st = st ? st : tess__lora_config_read(tess_json_root(doc), "fuzz", &c);
    if (st ? !*tess_error() : c.rank < 1 || !isfinite(c.alpha)) {
        abort();
    }
    tess_json_free(doc);
    return 0;
}
