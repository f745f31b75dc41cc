"""Support vector machines: linear, with a kernel, and of one class."""

from zoo.models.svm.kernel_svm import KernelSVM
from zoo.models.svm.one_class_svm import OneClassSVM
from zoo.models.svm.svm import SVM

__all__ = ["SVM", "KernelSVM", "OneClassSVM"]
