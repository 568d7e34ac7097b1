"""LLVM IR emitters: the code generator that serves the host CPU and NVPTX alike."""
