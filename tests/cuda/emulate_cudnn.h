/* SPDX-License-Identifier: Apache-2.0 */
/* A cuDNN for the emulated card: descriptors that hold their contract (emulate_cudnn.cpp), and a
 * processor's answer to a graph (emulate_cudnn_run.cpp).
 *
 * EMULATE_CUDNN in the environment, read when the library is opened: unset, it is not installed;
 * "fast" it is; else what is wrong with it: "old", "incomplete" (without its functions), "closed"
 * (no handle), "unfinished" (graphs do not finalize), "no_engine", "random" (engines that do not
 * repeat), "large" (a workspace beyond all bounds), "fails" (plans do not run), "slow". */
#ifndef TESSERA_TESTS_EMULATE_CUDNN_H
#define TESSERA_TESTS_EMULATE_CUDNN_H

#include <cudnn_graph.h>

#include <map>
#include <string>
#include <vector>

namespace emulate_cudnn
{

struct attribute {
    cudnnBackendAttributeType_t type;
    int64_t n;
    std::vector<char> bytes;
};

struct descriptor {
    cudnnBackendDescriptorType_t type;
    bool finalized = false;
    std::map<int, attribute> attributes;

    bool has(int name) const
    {
        return attributes.count(name) > 0;
    }
    template <class T> T get(int name, int64_t i = 0) const
    {
        return reinterpret_cast<const T *>(attributes.at(name).bytes.data())[i];
    }
    int64_t count(int name) const
    {
        return has(name) ? attributes.at(name).n : 0;
    }
    /* NULL where there is none. */
    const descriptor *ref(int name, int64_t i = 0) const
    {
        return has(name) ? static_cast<const descriptor *>(get<cudnnBackendDescriptor_t>(name, i))
                         : nullptr;
    }
};

/* A tensor's elements, dense in the order of its dimensions. */
struct tensor_value {
    int64_t dim[4];
    std::vector<double> x;
};

/* Where a finalized tensor's element lies, in elements. */
int64_t address(const descriptor &tensor, const int64_t *index);

/* Runs the operations in order; data: by unique id, of what is not virtual. */
void run_graph(const descriptor &graph, const std::map<int64_t, void *> &data);

} // namespace emulate_cudnn

#endif
