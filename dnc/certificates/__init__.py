"""Bounds on few-shot error from class geometry."""

from dnc.certificates.bounds import CERTIFICATES, Certificate, available, certificate, two_class

__all__ = ["CERTIFICATES", "Certificate", "available", "certificate", "two_class"]
