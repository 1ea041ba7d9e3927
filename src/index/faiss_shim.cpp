/* SPDX-License-Identifier: Apache-2.0 */
/* FAISS's C API signatures over the C++ library, for a libfaiss without the C symbols.
 *
 * Only what the index calls is here.  No exception leaves: each becomes a code and a text that the
 * thread keeps, as in FAISS's own C API.  The functions are static and reached through the table,
 * so that their names cannot meet those of a libfaiss_c.so loaded beside them.
 */
#include "index/faiss.h"

#include <faiss/AutoTune.h>
#include <faiss/Index.h>
#include <faiss/impl/FaissException.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>

#include <exception>
#include <memory>
#include <new>

namespace
{

/* A fixed array, since keeping the text of a bad_alloc must not allocate. */
thread_local char last_text[1024];

int keep(int code, const char *text)
{
    snprintf(last_text, sizeof(last_text), "%s", text);
    return code;
}

/* Runs `body` and turns what it throws into the C API's codes. */
template <typename Body> int guarded(Body body)
{
    try {
        body();
        return 0;
    } catch (const faiss::FaissException &e) {
        return keep(-2, e.msg.c_str());
    } catch (const std::bad_alloc &) {
        return keep(-4, "out of memory");
    } catch (const std::exception &e) {
        return keep(-4, e.what());
    } catch (...) {
        return keep(-1, "unknown exception");
    }
}

faiss::Index *cpp(tess__faiss_index *ix)
{
    return reinterpret_cast<faiss::Index *>(ix);
}

const faiss::Index *cpp(const tess__faiss_index *ix)
{
    return reinterpret_cast<const faiss::Index *>(ix);
}

int index_factory(tess__faiss_index **out, int d, const char *description, int metric)
{
    return guarded([&] {
        auto *ix = faiss::index_factory(d, description, static_cast<faiss::MetricType>(metric));
        *out = reinterpret_cast<tess__faiss_index *>(ix);
    });
}

int train(tess__faiss_index *ix, int64_t n, const float *x)
{
    return guarded([&] { cpp(ix)->train(n, x); });
}

int add(tess__faiss_index *ix, int64_t n, const float *x)
{
    return guarded([&] { cpp(ix)->add(n, x); });
}

int search(const tess__faiss_index *ix, int64_t n, const float *x, int64_t k, float *distances,
           int64_t *labels)
{
    return guarded([&] { cpp(ix)->search(n, x, k, distances, labels); });
}

int reconstruct_n(const tess__faiss_index *ix, int64_t first, int64_t n, float *out)
{
    return guarded([&] { cpp(ix)->reconstruct_n(first, n, out); });
}

int write_index(const tess__faiss_index *ix, FILE *f)
{
    return guarded([&] { faiss::write_index(cpp(ix), f); });
}

int read_index(FILE *f, int io_flags, tess__faiss_index **out)
{
    return guarded(
        [&] { *out = reinterpret_cast<tess__faiss_index *>(faiss::read_index(f, io_flags)); });
}

void free_index(tess__faiss_index *ix)
{
    delete cpp(ix);
}

int64_t ntotal(const tess__faiss_index *ix)
{
    return cpp(ix)->ntotal;
}

int dimension(const tess__faiss_index *ix)
{
    return static_cast<int>(cpp(ix)->d);
}

int is_trained(const tess__faiss_index *ix)
{
    return cpp(ix)->is_trained;
}

int metric_type(const tess__faiss_index *ix)
{
    return cpp(ix)->metric_type;
}

int space_new(tess__faiss_space **out)
{
    return guarded(
        [&] { *out = reinterpret_cast<tess__faiss_space *>(new faiss::ParameterSpace()); });
}

void space_free(tess__faiss_space *space)
{
    delete reinterpret_cast<faiss::ParameterSpace *>(space);
}

int set_parameter(const tess__faiss_space *space, tess__faiss_index *ix, const char *name,
                  double value)
{
    return guarded([&] {
        reinterpret_cast<const faiss::ParameterSpace *>(space)->set_index_parameter(cpp(ix), name,
                                                                                    value);
    });
}

const char *last_error(void)
{
    return last_text;
}

} // namespace

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)
extern "C" const char tess__faiss_version[] =
    TEXT(FAISS_VERSION_MAJOR) "." TEXT(FAISS_VERSION_MINOR) "." TEXT(FAISS_VERSION_PATCH);

extern "C" const tess__faiss_api tess__faiss_shim = {
    index_factory, train,      add,           search,     reconstruct_n, write_index,
    read_index,    free_index, ntotal,        dimension,  is_trained,    metric_type,
    space_new,     space_free, set_parameter, last_error,
};
