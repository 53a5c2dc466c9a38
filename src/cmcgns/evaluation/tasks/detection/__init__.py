"""Detection on frozen features: a YOLOv3 head is trained, and every image of the test set counts."""
